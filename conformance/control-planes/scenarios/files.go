package scenarios

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"nuncio/conformance/control-planes/kit"
	"nuncio/conformance/control-planes/plane"
)

// files: configuration from the filesystem, exchanged by atomic moves under load.
func files() []Scenario {
	return []Scenario{
		{"files/moved-into-place-under-load", with(sotw, movedIntoPlace)},
		{"files/broken-file-is-refused", with(sotw, brokenFile)},
	}
}

// document is a DiscoveryResponse as a file has it.
func document(version string, resources ...plane.Resource) string {
	var list []string
	for _, r := range resources {
		body, err := protojson.Marshal(r.Any)
		if err != nil {
			panic(err)
		}
		list = append(list, string(body))
	}
	return fmt.Sprintf(`{"version_info": %q, "resources": [%s]}`, version, strings.Join(list, ",\n"))
}

// fileProxy is a proxy whose listeners, clusters and routes are files.
func fileProxy(s *site, one int) (*kit.Proxy, string) {
	routesFile := s.Replace("rds.json", document("1", routes("routes", "back", "1")))
	inRoutes := fmt.Sprintf("rds: {route_config_name: routes, config_source: {resource_api_version: V3, path_config_source: {path: %s}}}", routesFile)
	lds := s.Replace("lds.json", document("1", listener("front", s.port, inRoutes)))
	cds := s.Replace("cds.json", document("1", staticCluster("back", one)))
	proxy := s.Proxy("proxy", s.admin, fmt.Sprintf(`
node: {id: conformance, cluster: conformance}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}
dynamic_resources:
  cds_config: {resource_api_version: V3, path_config_source: {path: %s}}
  lds_config: {resource_api_version: V3, path_config_source: {path: %s}}
`, s.admin, cds, lds))
	proxy.Ready(15 * time.Second)
	s.showsVersion("1")
	return proxy, inRoutes
}

func movedIntoPlace(s *site) {
	one, two := s.Upstream("one", nil), s.Upstream("two", nil)
	proxy, inRoutes := fileProxy(s, one.Port)
	load := s.Load(loadOf(s))
	s.Replace("rds.json", document("2", routes("routes", "back", "2")))
	s.showsVersion("2")
	s.Replace("cds.json", document("2", staticCluster("back", two.Port), staticCluster("more", one.Port)))
	s.body("/", "two")
	s.Replace("rds.json", document("3", routes("routes", "more", "3")))
	s.showsVersion("3")
	s.body("/", "one")
	at := *s
	at.port = s.Port()
	s.Replace("lds.json", document("2", listener("front", s.port, inRoutes), listener("second", at.port, inRoutes)))
	at.body("/", "one")
	load.StopClean(s.T)
	proxy.Stop()
}

func brokenFile(s *site) {
	one := s.Upstream("one", nil)
	proxy, _ := fileProxy(s, one.Port)
	load := s.Load(loadOf(s))
	s.Replace("rds.json", "{this is: [not json")
	s.stat(proxy, "http.http.rds.routes.update_failure", 1)
	s.showsVersion("1")
	s.Replace("rds.json", document("2", routes("routes", "back", "2")))
	s.showsVersion("2")
	load.StopClean(s.T)
	proxy.Stop()
}
