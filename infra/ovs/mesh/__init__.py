"""The pods' network of a small cluster: VXLAN tunnels of Open vSwitch between all nodes. See README.md."""
