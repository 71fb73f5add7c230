"""Files and folders: written whole, locked, read row by row. Nothing else in the package touches a disk on its own."""
