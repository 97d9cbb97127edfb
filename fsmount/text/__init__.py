"""Words in pictures: reading them, and finding them again. Knows stores, and no mount."""
