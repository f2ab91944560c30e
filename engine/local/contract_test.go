package local

import (
	"testing"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/enginetest"
)

func TestContract(t *testing.T) {
	enginetest.Run(t, func(t *testing.T) engine.Engine {
		e, _ := openEngine(t, newDirs(t), nil)
		return e
	})
}
