"""Simplified image storage: lazy crop sizes, kept in S3. A façade on lazypix."""
