"""A gallery: the smallest project of Django's that shows images by lazypix."""
