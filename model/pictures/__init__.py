"""What people look at, as PNG files: recordings and their views, and confusion matrices."""
