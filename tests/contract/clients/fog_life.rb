# fog-openstack: a server's life against a running cloud. Usage: ruby -W0 fog_life.rb CLOUDS_YAML
# Debian's package ruby-fog-openstack has the library.
require "fog/openstack"
require "yaml"

auth = YAML.load_file(ARGV.fetch(0))["clouds"]["sixstack"]["auth"]
options = {
  openstack_auth_url: auth["auth_url"].delete_suffix("/v3"),
  openstack_username: auth["username"],
  openstack_api_key: auth["password"],
  openstack_project_name: auth["project_name"],
  openstack_domain_id: "default",
}
compute = Fog::OpenStack::Compute.new(**options)
network = Fog::OpenStack::Network.new(**options)
tiny = Fog::OpenStack::Image.new(**options).images.find { |image| image.name == "tiny" }
flavor = compute.flavors.find { |one| one.name == "tiny" }

key = compute.key_pairs.create(name: "fog")
server = compute.servers.create(
  name: "fog",
  image_ref: tiny.id,
  flavor_ref: flavor.id,
  key_name: key.name,
  nics: [{ "net_id" => network.networks.find { |one| one.name == "public" }.id }],
  user_data: "#!/bin/sh\ntrue\n" * 10, # long enough for line breaks in its base64
  metadata: { "made-by" => "fog" },
)
server.wait_for(240) { ready? }
server = compute.servers.get(server.id)
raise "no address" if server.addresses["public"].empty?
raise "no metadata" unless server.metadata.map { |one| [one.key, one.value] } == [%w[made-by fog]]
raise "no port" if network.ports(filters: { device_id: server.id }).empty?
[compute.security_groups, compute.addresses, compute.volumes, compute.snapshots].each do |list|
  raise "#{list.class} is not empty" unless list.to_a.empty?
end
server.reboot("HARD")
server.wait_for(240) { ready? }
server.stop
server.wait_for(240) { state == "SHUTOFF" }
server.start
server.wait_for(240) { ready? }
server.destroy
Fog.wait_for(240) { compute.servers.get(server.id).nil? }
key.destroy
puts "fog: done"
