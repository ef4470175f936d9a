// node publish.js URL COUNT: publishes 0 … COUNT-1 on devices/npm/value with QoS 1 and prints how many were acknowledged.
const mqtt = require("mqtt");

const [url, count, version] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4] ?? 5)];
const client = mqtt.connect(url, { protocolVersion: version });
let acknowledged = 0;
client.on("connect", () => {
  for (let i = 0; i < count; i++) {
    client.publish("devices/npm/value", String(i), { qos: 1 }, (error) => {
      if (error) throw error;
      if (++acknowledged === count) {
        console.log(acknowledged);
        client.end();
      }
    });
  }
});
