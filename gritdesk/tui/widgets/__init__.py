"""The widgets, one a file; they show what they are given and know no Desk."""
