"""Tasks woven into long documents that need what stands far apart, as Olmo 3's long-context stage has them."""
