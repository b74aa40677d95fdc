"""Enrol with an invite, renew a membership. Importing this loads the messages alone; client and server need Trio."""
