"""What training minimises: which predictions answer for which box, and how wrong they are."""
