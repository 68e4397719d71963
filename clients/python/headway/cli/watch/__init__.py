"""`headway watch` and `headway wait`: they follow jobs until these end."""
