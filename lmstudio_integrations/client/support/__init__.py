"""What every room uses: checks of arguments, progress bars, warnings."""
