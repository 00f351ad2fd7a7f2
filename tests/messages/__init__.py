"""Common mistakes, what the messages about them name on every interface, and the page that explains them."""
