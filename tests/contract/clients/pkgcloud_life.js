// pkgcloud 2.2: a server's life against a running cloud. Usage: node pkgcloud_life.js CLOUDS_YAML
// `npm install pkgcloud@2.2.0` where it runs, or NODE_PATH, provides the library.
const fs = require('fs');
const pkgcloud = require('pkgcloud');

const PATIENCE_SECONDS = 240;
const member = fs.readFileSync(process.argv[2], 'utf8').split('sixstack-admin')[0];
const field = (name) => member.match(new RegExp(`${name}: (\\S+)`))[1];
const options = {
  provider: 'openstack',
  authUrl: field('auth_url').replace(/\/v3$/, ''),
  keystoneAuthVersion: 'v3',
  username: field('username'),
  password: field('password'),
  domainId: 'default',
  tenantName: field('project_name'),
  projectDomainId: 'default',
  region: 'RegionOne',
};

function call(client, name, ...args) {
  return new Promise((resolve, reject) => {
    client[name](...args, (error, value) => (error ? reject(error) : resolve(value)));
  });
}

async function waitUntil(look) {
  for (let waited = 0; waited < PATIENCE_SECONDS; waited += 1) {
    if (await look()) return;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  throw new Error('what was waited for did not come');
}

async function main() {
  const compute = pkgcloud.compute.createClient(options);
  const network = pkgcloud.network.createClient(options);
  const named = (list, name) => list.find((one) => one.name === name);
  const image = named(await call(compute, 'getImages'), 'tiny');
  const flavor = named(await call(compute, 'getFlavors'), 'tiny');
  const segment = named(await call(network, 'getNetworks'), 'public');
  await call(compute, 'addKey', { name: 'pkgcloud' });
  const { id } = await call(compute, 'createServer', {
    name: 'pkgcloud', image, flavor, keyname: 'pkgcloud', networks: [{ uuid: segment.id }],
  });
  const isRunning = async () => (await call(compute, 'getServer', id)).status === 'RUNNING';
  await waitUntil(isRunning);
  const { addresses } = await call(compute, 'getServer', id);
  if (!addresses.public.length) throw new Error('the server has no address');
  if ((await call(compute, 'getFloatingIps')).length) throw new Error('there are floating IPs');
  if (!(await call(compute, 'getExtensions')).length) throw new Error('there are no extensions');
  await call(compute, 'rebootServer', id);
  await waitUntil(isRunning);
  await call(compute, 'destroyServer', id);
  await waitUntil(() => call(compute, 'getServer', id).then(() => false, (error) => error.statusCode === 404));
  await call(compute, 'destroyKey', 'pkgcloud');
  console.log('pkgcloud: done');
}

main().catch((error) => { console.error(error); process.exit(1); });
