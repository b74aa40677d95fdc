"""Plans: graphs of work units whose inputs come from each other's outputs, kept on disk until they are done."""
