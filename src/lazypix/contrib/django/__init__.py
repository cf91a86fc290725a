"""lazypix for Django: a model field, template tags, an admin widget, URLs, a storage, `manage.py lazypix`.

Needs Django 5.2 or later: `pip install "lazypix[django]"`. The application goes into `INSTALLED_APPS` by this name.
"""

try:
    import django as _  # noqa: F401
except ImportError as error:
    raise ImportError('Django is not installed: pip install "lazypix[django]"') from error
