// One call of the AWS SDK for JavaScript: node call.cjs <service> <operation> <input as JSON>.
// Prints the answer, or the error, as JSON. The endpoint is the environment's.
const [service, operation, input] = process.argv.slice(2);
const sdk = require(`@aws-sdk/client-${service}`);
const client = new sdk[`${service.replace(/(^|-)./g, (at) => at.at(-1).toUpperCase())}Client`]({
  region: "us-east-1",
  maxAttempts: 1,
});
const dates = (key, value) => (key === "sentAt" ? new Date(value) : value);

client
  .send(new sdk[`${operation}Command`](JSON.parse(input, dates)))
  .then((answer) => ({ answer }))
  .catch((error) => ({
    error: error.name,
    isTyped: sdk[error.name] !== undefined && error instanceof sdk[error.name],
    message: error.message,
    status: error.$metadata?.httpStatusCode,
  }))
  .then((found) => console.log(JSON.stringify(found)));
