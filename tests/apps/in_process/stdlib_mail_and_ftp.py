"""smtplib and ftplib against the smallest servers that satisfy them."""

import ftplib
import io
import smtplib
import socket
import threading


def smtp_server(listener: socket.socket, inbox: list[bytes]) -> None:
    conn, _ = listener.accept()
    with conn, conn.makefile("rwb", 0) as file:
        file.write(b"220 here\r\n")
        while line := file.readline():
            word = line.split()[0].upper()
            if word == b"DATA":
                file.write(b"354 go\r\n")
                inbox.append(b"".join(iter(file.readline, b".\r\n")))
            file.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")


def ftp_server(listener: socket.socket) -> None:
    conn, _ = listener.accept()
    answers = {b"USER": b"331 password", b"PASS": b"230 in", b"TYPE": b"200 ok", b"QUIT": b"221 -"}
    with conn, conn.makefile("rwb", 0) as file, socket.create_server(("127.0.0.1", 0)) as data:
        file.write(b"220 here\r\n")
        high, low = divmod(data.getsockname()[1], 256)
        answers[b"PASV"] = b"227 passive (127,0,0,1,%d,%d)" % (high, low)
        while line := file.readline():
            word = line.split()[0].upper()
            if word == b"RETR":
                file.write(b"150 here it comes\r\n")
                with data.accept()[0] as sink:
                    sink.sendall(b"file" * 10_000)
                file.write(b"226 done\r\n")
            else:
                file.write(answers.get(word, b"500 what") + b"\r\n")


inbox: list[bytes] = []
mail, files = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
threads = [
    threading.Thread(target=smtp_server, args=(mail, inbox)),
    threading.Thread(target=ftp_server, args=(files,)),
]
for thread in threads:
    thread.start()
with smtplib.SMTP("127.0.0.1", mail.getsockname()[1], timeout=60) as smtp:
    smtp.sendmail("a@example", ["b@example"], "Subject: hi\n\nbody")
print(b"body" in inbox[0])
with ftplib.FTP(timeout=60) as ftp:
    ftp.connect("127.0.0.1", files.getsockname()[1])
    ftp.login()
    got = io.BytesIO()
    ftp.retrbinary("RETR file", got.write)
    print(len(got.getvalue()))
for thread in threads:
    thread.join()
mail.close()
files.close()
