# Spack recipe, for Spack 1.0 or later. It builds the branch main of the Git checkout it lies in:
#
#     spack repo add packaging/spack/spack_repo/mha2mla
#     spack install mha2mla
#
# `spack install --test=root mha2mla` also builds and runs the unit tests.

from spack_repo.builtin.build_systems.cmake import CMakePackage

from spack.package import *


class Mha2mla(CMakePackage):
    """Turns the attention of a pretrained Llama-family model into multi-head
    latent attention and heals the model by fine-tuning it over MPI."""

    # From this file up to the root of the checkout.
    git = "file://" + ancestor(__file__, 7)

    license("MIT")

    version("main", branch="main")

    variant("plots", default=True, description="Draw the curves of reports with gnuplot")

    depends_on("c", type="build")
    depends_on("cmake@3.20:", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi")
    depends_on("openblas@0.3.10: threads=openmp")  # contains LAPACKE
    depends_on("hdf5@1.10: ~mpi")  # every file has one writer
    depends_on("zlib-api")
    depends_on("zstd")
    depends_on("libyaml")
    depends_on("jansson")
    depends_on("pcre2 +jit")
    depends_on("utf8proc")
    depends_on("openssl")
    depends_on("gnuplot", type="run", when="+plots")
    depends_on("cmocka", type="test")

    def cmake_args(self):
        return [self.define("BUILD_TESTING", self.run_tests)]

    def check(self):
        with working_dir(self.build_directory):
            ctest("-L", "unit", "--output-on-failure")
