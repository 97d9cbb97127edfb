"""What several commands share: options, opening a store, output, progress, standard streams."""
