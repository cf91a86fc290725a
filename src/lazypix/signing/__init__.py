"""What is signed with HMAC-SHA256: `messages` to others, `links` to images. Pure, and in constant time."""
