"""What is signed with HMAC-SHA256: `messages` to others. Pure, and in constant time."""
