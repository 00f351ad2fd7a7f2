"""What happens before a release: the checks of the distributions and of the tag, and the workflows that run them."""
