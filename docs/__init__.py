"""What the project writes about itself: the scripts that make and check the pages of this folder."""
