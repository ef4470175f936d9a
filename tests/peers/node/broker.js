// An aedes broker: node broker.js PORT. Prints "ready" when it listens.
const aedes = require("aedes")();
const net = require("net");

net.createServer(aedes.handle).listen(Number(process.argv[2]), "127.0.0.1", () => console.log("ready"));
