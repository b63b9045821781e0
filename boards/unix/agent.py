# The unix port has no raw REPL; this stands in for it when the host starts one as a target.
#
# stdin: a line with a length, then that many bytes of code, again and again. Answered on stdout
# by ACK when the code is here, what it prints, and, as in the raw REPL, EOT, the traceback if
# there is one, EOT.
#
# Arguments: the folder that becomes the root, the folder of the device package.
import io
import os
import sys

import vfs


def settle(root, package):
    # The root is a folder of this target's own, as a board's file system is.
    host = vfs.VfsPosix(root)
    library = vfs.VfsPosix(package)
    vfs.umount("/")
    vfs.mount(host, "/")
    vfs.mount(library, "/device", readonly=True)
    os.chdir("/")  # else relative paths lie in the host's working directory
    sys.path[:] = ["", ".frozen", "/lib", "/device"]
    sys.argv[:] = [""]


def receive(source):
    line = source.readline()
    return source.read(int(line)) if line else None


def run(code, scope):
    try:
        exec(code, scope)
    except BaseException as error:
        text = io.StringIO()
        sys.print_exception(error, text)
        return text.getvalue()
    return ""


def serve():
    scope = {"__name__": "__main__"}
    sink = sys.stdout.buffer
    while True:
        code = None
        try:
            code = receive(sys.stdin.buffer)
            if code is None:
                return
            sink.write(b"\x06")
            trace = run(code, scope)
        except KeyboardInterrupt:
            if code is None:
                continue  # Ctrl-C while nothing runs
            trace = "KeyboardInterrupt: "
        sink.write(b"\x04" + trace.encode() + b"\x04")


settle(sys.argv[1], sys.argv[2])
serve()
