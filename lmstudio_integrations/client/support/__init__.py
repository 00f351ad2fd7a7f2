"""What every subpackage uses: checks of arguments, progress bars, warnings."""
