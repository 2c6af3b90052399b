# Keeps a PostgreSQL server for a test process: does what it is told line by line, and when nobody is left to tell it
# anything, however that process ended, ends the server and deletes its directory.
# $1: the directory; what follows is the command that becomes the server.
directory=$1
shift
server=
stop() {
  [ -n "$server" ] || return 0
  kill -s "$1" "$server" 2>/dev/null
  wait "$server" 2>/dev/null
  server=
}
while read -r word argument; do
  case $word in
    start)
      [ -n "$server" ] || { "$@" </dev/null >>"$directory/log" 2>&1 & server=$!; }
      ;;
    stop) stop "$argument" ;;
    signal) [ -z "$server" ] || kill -s "$argument" "$server" ;;
  esac
  echo "done"
done
[ -z "$server" ] || kill -s CONT "$server" 2>/dev/null
stop QUIT
rm -rf "$directory"
