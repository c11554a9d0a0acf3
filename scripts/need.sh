#!/bin/sh
# Installs the Debian packages of packages.txt that are missing, after saying which.
missing=
for p in $(sed 's/#.*//' "$(dirname "$0")/../packages.txt"); do
  dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
echo "noema needs these Debian packages, installing them now:$missing"
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get install -y -qq $missing >/dev/null 2>&1 && exit 0
$sudo apt-get update -qq && $sudo apt-get install -y -qq $missing >/dev/null && exit 0
echo "they could not be installed; try:  $sudo apt-get install$missing" >&2
exit 1
