"""Files: reading, uploading and downloading them."""
