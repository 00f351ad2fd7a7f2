"""Common mistakes, the messages about them on every interface, and the page that explains them."""
