#!/bin/sh
# The first process of a virtual host: what lies on its volume is made once, then the desktop and sshd run.
set -eu

# The key by which clients know this host again: on the volume, so that it outlives the container.
kept=/home/.host
install -d -m 700 "$kept"
key=$kept/ssh_host_ed25519_key
if [ ! -s "$key" ] || [ ! -s "$key.pub" ]; then
    rm -f "$kept"/new*
    ssh-keygen -q -t ed25519 -N '' -C "$(hostname)" -f "$kept/new"
    mv "$kept/new.pub" "$key.pub"
    mv "$kept/new" "$key"
fi
echo "host key: $(cat "$key.pub")"

if [ ! -d /home/user ]; then
    rm -rf /home/.new
    cp -R /etc/skel /home/.new
    chown -R user:user /home/.new
    chmod 700 /home/.new
    mv /home/.new /home/user
fi

# On loopback, where only who has come in by ssh can reach it: ssh -L 5901:localhost:5901.
desktop() {
    cd /home/user
    export HOME=/home/user USER=user DISPLAY=:1
    as_user='setpriv --reuid=user --regid=user --init-groups --'
    while :; do
        rm -f /tmp/.X1-lock /tmp/.X11-unix/X1
        $as_user Xtigervnc :1 -localhost -SecurityTypes None -geometry 1280x800 -desktop "$(hostname)" >/dev/null 2>&1 &
        server=$!
        until [ -e /tmp/.X11-unix/X1 ] || ! kill -0 "$server" 2>/dev/null; do sleep 0.1; done
        $as_user openbox >/dev/null 2>&1 &
        $as_user xterm >/dev/null 2>&1 &
        wait "$server" || true
        sleep 5
    done
}
desktop &

install -d -m 755 /run/sshd
exec /usr/sbin/sshd -D -e
