"""The command line ``sccg-compress``: wires teachers, students, engines and measurements together."""
