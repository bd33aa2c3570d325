"""The installed whole tried out: doctor, demo, benchmark."""
