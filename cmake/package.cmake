# Packages of what install.cmake installs: `cpack --preset release` writes a .tar.gz that runs from
# any folder and a .deb into build/release.
set(MHA2MLA_MAINTAINER "mha2mla contributors <maintainers@mha2mla.invalid>"
    CACHE STRING "Maintainer named in the Debian package: name <address>")

set(CPACK_GENERATOR TGZ DEB)
set(CPACK_PACKAGE_NAME mha2mla)
set(CPACK_PACKAGE_VENDOR "mha2mla contributors")
set(CPACK_PACKAGE_FILE_NAME
    "mha2mla-${PROJECT_VERSION}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR}")
set(CPACK_PACKAGE_CONTACT ${MHA2MLA_MAINTAINER})
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "converts language models to multi-head latent attention")
set(CPACK_RESOURCE_FILE_LICENSE ${CMAKE_SOURCE_DIR}/LICENSE)
set(CPACK_STRIP_FILES ON)
set(CPACK_VERBATIM_VARIABLES ON)

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
# Libraries are added by dpkg-shlibdeps, but not which build of OpenBLAS: the others are slower.
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "openmpi-bin, libopenblas0-openmp")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS gnuplot-nox)
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "bash-completion, slurm-client")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
"mha2mla turns the attention of a pretrained Llama-family model into
multi-head latent attention (partial RoPE and joint SVD), which needs a KV
cache of an eighth to a third of the size, and then heals the model by
fine-tuning it over MPI on CPUs, on one machine or under Slurm.
Models are read and written as Hugging Face directories.")
include(CPack)
