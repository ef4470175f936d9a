"""Virtual hosts: an environment of one user each, entered by ssh with a key. infra/hosts/README.md says how they are used.

host.py        what a host is, and what may be asked for
keys.py        OpenSSH public keys, checked
backend.py     what runs them: the protocol of the two below, and which one the settings say
podman.py      containers of this machine; apart.py keeps their networks apart
kubernetes.py  a namespace each in a cluster; manifests.py has the objects
answering.py   whether sshd answers
hosts.py       what one may do with hosts: checked, done, and kept in the audit log

What runs a host is the only place that knows of it: nothing of it is in the store, so the two cannot contradict each other.
"""

from isotherm.hosts.backend import Backend, HostsAway, HostsUnusable, HostTaken, NoSuchHost, backend_of
from isotherm.hosts.host import Host, Spec
from isotherm.hosts.hosts import Hosts

__all__ = ["Backend", "Host", "HostTaken", "Hosts", "HostsAway", "HostsUnusable", "NoSuchHost", "Spec", "backend_of"]
