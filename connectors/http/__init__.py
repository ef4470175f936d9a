"""HTTP: ``POST /api/v1/readings``, what InfluxDB's clients speak, and a WebSocket.

    curl -d '{"n":"room-1/temperature","u":"Cel","v":21.5}' http://127.0.0.1:7310/api/v1/readings

    | path                              | body                                         | answer                             |
    |-----------------------------------|----------------------------------------------|------------------------------------|
    | POST /api/v1/readings             | SenML JSON or CBOR, NDJSON, Influx, Graphite | 204, or problem+json (RFC 9457)    |
    | POST /write, /api/v2/write        | Influx lines; ?precision=                    | 204, or Influx's own error         |
    | GET /ping, /health; POST /query   | what Influx clients ask first                | 204; 200; 200 for CREATE DATABASE  |
    | GET /api/v1/ws                    | a WebSocket, see `websocket.py`              |                                    |

204 is sent when Kafka has every reading. 400 names the readings that were refused; the good ones beside them are kept. 401
without a valid token, 408 for a body that does not come, 413 for one that is too large, also unpacked, 415 for another
format, 503 with Retry-After when Kafka is away or too much is on its way. A body may be compressed (gzip, deflate). Who is
answered before the body has come is disconnected.
"""

from connectors.http.server import listening

__all__ = ["listening"]
