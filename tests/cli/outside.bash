# outside.bash - what the tests of the command line share. They source it in the root of the source
# and then stand in an empty folder of their own, which is gone at the end.
root=$PWD noema=$(realpath "${NOEMA:-build/noema}") pass=0 fail=0
t=$(mktemp -d)
trap 'rm -rf "$t"' EXIT
cd "$t" || exit 1

ok() { pass=$((pass + 1)); }
no() { fail=$((fail + 1)); echo "FAILED: $*"; }
is() { if [ "$2" = "$3" ]; then ok; else no "$1: '$2', expected '$3'"; fi; }
# run CODE NAME COMMAND...: runs it, at most $limit seconds, checks the exit code, leaves `out` and `err`.
run() {
  local code=$1 name=$2
  shift 2
  timeout "${limit:-60}" "$@" > out 2> err < /dev/null
  is "$name: exit code" $? "$code"
}
# try CODE COMMAND...: the same, under the name of what was typed.
try() { run "$1" "${*:3}" "${@:2}"; }
# says PATTERN: stderr of the last run matches; prints: stdout.
says() { if grep -qE -- "$1" err; then ok; else no "stderr lacks '$1': $(head -2 err)"; fi; }
prints() { if grep -qE -- "$1" out; then ok; else no "stdout lacks '$1': $(head -2 out)"; fi; }
