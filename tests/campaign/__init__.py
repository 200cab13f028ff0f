"""A campaign of faults: damaged inputs, kills and full disks. Asked for by name: see `docs/about/faults.md`."""
