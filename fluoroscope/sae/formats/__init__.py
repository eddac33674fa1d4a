"""SAE file formats, one file each; the base class knows none of them."""
