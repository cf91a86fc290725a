"""Simplified image storage: lazy crop sizes, kept in S3. A façade on lazypix.

What an application of `imagestorage` knows, and what it is in lazypix:

==============================  ===============================================================================
`S3ImageStorage(id, ext)`       an image (`id` is its ident) and the format of its variants
`configure(…)`                  a library: `Library` on `s3://<bucket>`, opened once in each process
`store_origin(url, size)`       `Library.add_url`, with the original brought within a size before it is stored
`get_requested_image(…)`        `Library.stored_key` (is it there?), `Library.make` (the image itself)
`s3_store_image`                `Library.variant`: made and stored, once among all machines
`<id>/200x100.jpg`              the key of the variant `200x100` as JPEG, as every lazypix server knows it
`configure_memcache([…])`       `lazypix.cache`: what is stored, and who stores it
`configure_webengine(name)`     `lazypix.http.Answer` in the types of a web framework: `imagestorage.engines`
==============================  ===============================================================================
"""
