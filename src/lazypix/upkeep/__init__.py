"""Work on a whole library: copied to another one, packed into an archive, unpacked from one."""
