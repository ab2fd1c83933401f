"""Where ``handle_message`` runs if not where its connection is: the executors of ``executor``."""
