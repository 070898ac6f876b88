"""Pages of this repository that are made: tables from results, help of the command line, pictures of the phantom."""
