package replica

import (
	"context"
	"fmt"
	"regexp"

	"github.com/rs/xid"

	pb "github.com/lakefsfs/lakefsfs/engine/internal/replica/replicapb"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// A cluster, or a node that is alone, has a name that it gives itself when it first needs one. A state that is restored from a snapshot gets
// a new one: two that began with one state are two.
var clusterKey = []byte("mcluster")

const clusterNameLen = 20

var clusterName = regexp.MustCompile(`^[0-9a-z]{20}$`) // an xid

func (a *applier) setCluster(c *pb.Cluster) error {
	if !clusterName.MatchString(c.GetId()) {
		return fmt.Errorf("cluster name %q: %w", c.GetId(), graveler.Invalid)
	}
	if ok, err := a.get(clusterKey, func([]byte) error { return nil }); err != nil || ok {
		return err
	}
	return a.set(clusterKey, mustMarshal(c))
}

// Cluster is the cluster's name, and those of the clusters whose state it began with, newest first; "" if it has none yet.
func (v view) Cluster() (id string, former []string, err error) {
	var c pb.Cluster
	_, err = v.message(clusterKey, &c)
	return c.Id, c.Former, err
}

// nameCluster sees to it that the cluster has a name. Only the leader can give it one.
func (r *Replica) nameCluster(ctx context.Context) error {
	v, err := r.View()
	if err != nil {
		return err
	}
	id, _, err := v.Cluster()
	v.Close()
	if err != nil || id != "" {
		return err
	}
	_, err = r.propose(ctx, &pb.Command{Op: &pb.Command_SetCluster{SetCluster: &pb.Cluster{Id: xid.New().String()}}})
	return err
}
