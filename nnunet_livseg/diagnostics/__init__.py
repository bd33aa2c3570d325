"""Try out the installation: doctor, demo, benchmark."""
