"""The rules of scripted models that pass a row of the card."""
