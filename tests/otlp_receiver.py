"""An OTLP collector that says what arrives.

Made of the published protobuf definitions and of no part of oomwatch. Listens by gRPC and by HTTP on
ports of the loopback interface that the system chooses. The first line on standard output tells them;
each further line is one request, decoded, as JSON.

--answers  what requests for logs are answered with, one after the other, and then ok: ok, unavailable,
           invalid, partial
--tls DIR  serves with TLS, and leaves the certificate of the authority in DIR/ca.pem
"""

import argparse
import json
import os
import ssl
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc

lock = threading.Lock()
answers = []


def tell(what):
    with lock:
        print(json.dumps(what), flush=True)


def arrived(via, signal, headers, request):
    """Tells of a request, and returns what to answer."""
    message = MessageToDict(request)
    tell({"via": via, "signal": signal, "headers": headers, "request": message})
    with lock:
        return answers.pop(0) if signal == "logs" and answers else "ok"


def partly_refused():
    refused = logs.ExportLogsPartialSuccess(rejected_log_records=1, error_message="no room")
    return logs.ExportLogsServiceResponse(partial_success=refused)


class Logs(logs_grpc.LogsServiceServicer):
    def Export(self, request, context):
        answer = arrived("grpc", "logs", dict(context.invocation_metadata()), request)
        if answer == "unavailable":
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        if answer == "invalid":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "never")
        if answer == "partial":
            return partly_refused()
        return logs.ExportLogsServiceResponse()


class Metrics(metrics_grpc.MetricsServiceServicer):
    def Export(self, request, context):
        arrived("grpc", "metrics", dict(context.invocation_metadata()), request)
        return metrics.ExportMetricsServiceResponse()


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    paths = {
        "/v1/logs": ("logs", logs.ExportLogsServiceRequest),
        "/v1/metrics": ("metrics", metrics.ExportMetricsServiceRequest),
    }
    statuses = {"unavailable": 503, "invalid": 400}

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path not in self.paths:
            tell({"via": "http", "wrong path": self.path})
            return self.answer(404, b"")
        signal, kind = self.paths[self.path]
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = arrived("http", signal, headers, kind.FromString(body))
        body = partly_refused().SerializeToString() if answer == "partial" else b""
        self.answer(self.statuses.get(answer, 200), body)

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def certificate(directory):
    """Makes an authority and a certificate of it for localhost; returns the latter's key and chain."""
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(os.path.join(directory, "ca.pem"))
    issued.private_key_and_cert_chain_pem.write_to_path(os.path.join(directory, "server.pem"))
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    return issued.private_key_pem.bytes(), chain


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--answers", default="")
    arguments.add_argument("--tls")
    arguments = arguments.parse_args()
    answers.extend(answer for answer in arguments.answers.split(",") if answer)

    server = grpc.server(futures.ThreadPoolExecutor())
    logs_grpc.add_LogsServiceServicer_to_server(Logs(), server)
    metrics_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
    http = ThreadingHTTPServer(("127.0.0.1", 0), Http)
    if arguments.tls:
        credentials = grpc.ssl_server_credentials([certificate(arguments.tls)])
        grpc_port = server.add_secure_port("127.0.0.1:0", credentials)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.path.join(arguments.tls, "server.pem"))
        http.socket = context.wrap_socket(http.socket, server_side=True)
    else:
        grpc_port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    threading.Thread(target=http.serve_forever, daemon=True).start()
    tell({"grpc": grpc_port, "http": http.server_address[1]})
    # Ends with whoever started it.
    sys.stdin.read()
    os._exit(0)


main()
