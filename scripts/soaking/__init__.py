"""The long races and storms that show what a hold promises; `scripts/soak` runs them."""
