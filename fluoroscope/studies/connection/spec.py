"""What a user says of the connection study; this module is free of torch."""

from fluoroscope.studies.connection.settings import ConnectionSettings


class ConnectionSpec(ConnectionSettings):
    """`fluoro run connection`: a slot network that thinks in steps, beside networks of its size
    and answers that nobody thought about.
    """
